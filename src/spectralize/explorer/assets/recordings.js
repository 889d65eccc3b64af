// The table is made anew whenever its address changes: who has turned a page or sorted by keyboard must not begin at the top again.
window.dash_clientside = window.dash_clientside || {};
(function () {
  "use strict";

  let last = null;

  document.addEventListener("focusin", function (event) {
    const inside = event.target.closest("#recordings-results");
    const isPage = event.target.closest("#recordings-pagination");
    last = inside ? { id: event.target.id, isPage: Boolean(isPage) } : null;
  });

  function find(focused) {
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
