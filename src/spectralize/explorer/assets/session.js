// What a page has to say when the explorer does not do what it is asked, which Dash keeps to itself.
(function () {
  "use strict";

  const PAUSE_MS = 60000;
  const CALLBACK = "_dash-update-component";
  const ask = window.fetch;

  // As `make_trouble` of layout/shell.py.
  function tell(text) {
    const props = {
      children: text, title: "That did not work", color: "red.9", variant: "filled", mb: "md", withCloseButton: true,
      closeButtonLabel: "Close", duration: 20000,
    };
    window.dash_clientside.set_props("trouble", {
      children: { namespace: "dash_mantine_components", type: "Alert", props: props },
    });
  }

  // A session that ended while its page was open: the page is asked for again, which leads to where people sign in. Not twice in
  // a row: if signing in is not what helps, the page had better stay.
  function signsIn() {
    if (Date.now() - Number(sessionStorage.getItem("explorer-asked-again") || 0) <= PAUSE_MS) {
      return false;
    }
    sessionStorage.setItem("explorer-asked-again", String(Date.now()));
    window.location.reload();
    return true;
  }

  window.fetch = async function (address) {
    const isCallback = String(address.url || address).includes(CALLBACK);
    let answer = null;
    try {
      answer = await ask.apply(this, arguments);
    } catch (error) {
      // Leaving a page ends what it waits for, too.
      if (isCallback && error.name !== "AbortError") {
        tell("The explorer does not answer. It may be down, or you may be offline.");
      }
      throw error;
    }
    if (answer.status === 401 ? !signsIn() && isCallback : isCallback && !answer.ok) {
      tell(answer.status === 401 ? "Sign in again: reload the page." : "The explorer answers with an error: " + answer.status + ".");
    }
    return answer;
  };
})();
