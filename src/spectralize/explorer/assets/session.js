// A session that ended while its page was open: the page is asked for again, which leads to where people sign in.
(function () {
  "use strict";

  const PAUSE_MS = 60000;
  const ask = window.fetch;

  window.fetch = async function () {
    const answer = await ask.apply(this, arguments);
    // Not twice in a row: if signing in is not what helps, the page had better stay.
    if (answer.status === 401 && Date.now() - Number(sessionStorage.getItem("explorer-asked-again") || 0) > PAUSE_MS) {
      sessionStorage.setItem("explorer-asked-again", String(Date.now()));
      window.location.reload();
    }
    return answer;
  };
})();
