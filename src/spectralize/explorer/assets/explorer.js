// What must happen in the browser itself on every page: themes, titles, the focus, and what the server is told of the screen.
window.dash_clientside = window.dash_clientside || {};
(function () {
  "use strict";

  function isDark(theme) {
    if (theme === "dark" || theme === "light") {
      return theme === "dark";
    }
    return window.matchMedia("(prefers-color-scheme: dark)").matches;
  }

  // A tab is called like its page, and who has followed a link reads on there, not at the top of the browser's window.
  let shown = null;

  function introduce() {
    const heading = document.querySelector("#page h1");
    if (!heading || (shown && shown.heading === heading && shown.text === heading.textContent)) {
      return;
    }
    const isOther = shown !== null && shown.path !== window.location.pathname;
    shown = { heading: heading, text: heading.textContent, path: window.location.pathname };
    document.title = heading.textContent + " · Spectralize";
    if (isOther) {
      document.getElementById("page").focus({ preventScroll: true });
    }
  }

  new MutationObserver(introduce).observe(document.documentElement, { childList: true, subtree: true });

  window.dash_clientside.explorer = Object.assign(window.dash_clientside.explorer || {}, {
    // The search is that of the window: pages change it without telling the router.
    visit: function (path, theme) {
      return {
        path: path,
        search: window.location.search,
        width: document.documentElement.clientWidth,
        dark: isDark(theme),
        touch: window.matchMedia("(pointer: coarse)").matches,
      };
    },

    visitHere: function () {
      const shown = document.documentElement.getAttribute("data-mantine-color-scheme");
      return window.dash_clientside.explorer.visit(window.location.pathname, shown);
    },

    // A link to other recordings on the page that compares: the path is the same, and the page is another one.
    compareOthers: function (search, visit) {
      const asked = (text) => new URLSearchParams(text).getAll("r").join("\n");
      const isHere = visit && visit.path === "/compare" && window.location.pathname === "/compare";
      return isHere && asked(window.location.search) !== asked(visit.search)
        ? window.dash_clientside.explorer.visitHere()
        : window.dash_clientside.no_update;
    },

    chooseTheme: function () {
      const shown = document.documentElement.getAttribute("data-mantine-color-scheme");
      return shown === "dark" ? "light" : "dark";
    },

    showTheme: function (theme) {
      const dark = isDark(theme);
      return [dark ? "dark" : "light", dark ? "Light" : "Dark"];
    },
  });
})();
