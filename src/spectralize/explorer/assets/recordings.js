// The table is made anew whenever its address changes: who has turned a page or sorted by keyboard must not begin at the top again.
window.dash_clientside = window.dash_clientside || {};
(function () {
  "use strict";

  let last = null;

  document.addEventListener("focusin", function (event) {
    const inside = event.target.closest("#recordings-results");
    const isPage = event.target.closest("#recordings-pagination");
    const chip = event.target.closest("#recordings-chips") ? event.target.value : null;
    last = inside || chip ? { id: event.target.id, isPage: Boolean(isPage), chip: chip } : null;
  });

  function find(focused) {
    if (focused.chip) {
      return document.querySelector("#recordings-chips input[value='" + CSS.escape(focused.chip) + "']");
    }
    if (focused.isPage) {
      return document.querySelector("#recordings-pagination [aria-current=page]");
    }
    return focused.id ? document.getElementById(focused.id) : null;
  }

  window.dash_clientside.recordings = {
    keepFocus: function () {
      const focused = last;
      window.setTimeout(function () {
        const found = focused && document.activeElement === document.body && find(focused);
        if (found) {
          found.focus({ preventScroll: true });
        }
      }, 50);
    },
  };
})();
