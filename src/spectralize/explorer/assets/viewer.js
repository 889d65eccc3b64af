// The viewer: which window is seen, what is under the pointer, and what follows from both. The server reads the window and
// sends traces; Plotly draws them. player.js, which plays, asks this file for the window and has it shown where it is.
window.dash_clientside = window.dash_clientside || {};
(function () {
  "use strict";

  const SHORTEST_S = 0.05;
  const STEPS_S = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400,
  ];
  // While somebody drags or keeps a key down, the server is asked once he pauses.
  const PAUSE_MS = 60;
  // A press that moves less is a click.
  const STILL_PX = 4;
  const TWICE_MS = 400;
  const BUTTONS = "#viewer-back, #viewer-on, #viewer-in, #viewer-out, #viewer-whole, #viewer-loop";

  const connected = new WeakSet();
  const decoded = new WeakMap();
  let viewer = null;
  let asking = null;
  let pressed = null;
  let clicked = null;
  const fingers = new Map();
  let held = null;
  let wish = null;

  function byId(id) {
    return document.getElementById(id);
  }

  function say(id, text) {
    const element = byId(id);
    if (element && element.textContent !== text) {
      element.textContent = text;
    }
  }

  // Times

  function clock(seconds, step) {
    const decimals = step >= 1 ? 0 : Math.ceil(-Math.log10(step) - 1e-9);
    const whole = Number(seconds.toFixed(decimals));
    const hours = Math.floor(whole / 3600);
    const minutes = Math.floor((whole - hours * 3600) / 60);
    const rest = (whole - hours * 3600 - minutes * 60).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, "0");
    return hours ? hours + ":" + String(minutes).padStart(2, "0") + ":" + rest : minutes + ":" + rest;
  }

  function ticks(start, end, most) {
    const span = end - start;
    const day = STEPS_S[STEPS_S.length - 1];
    const step = STEPS_S.find((one) => span / one <= most) || Math.ceil(span / most / day) * day;
    const values = [];
    const first = Math.max(0, Math.ceil((start - span) / step));
    for (let number = first; number <= Math.floor((end + span) / step); number += 1) {
      values.push(number * step);
    }
    return { values: values, texts: values.map((at) => clock(at, step)) };
  }

  // The window

  function windowSeen() {
    const range = viewer.gd.layout.xaxis.range;
    return { start: Math.max(0, Number(range[0])), end: Math.min(viewer.facts.length, Number(range[1])) };
  }

  function plotWidth() {
    return Math.max(1, viewer.gd.clientWidth - viewer.facts.margin.l - viewer.facts.margin.r);
  }

  // Range and labels in one: Plotly may drop a change that is made while it tells of another one.
  function show(start, end) {
    const length = viewer.facts.length;
    const span = Math.min(Math.max(end - start, Math.min(SHORTEST_S, length)), length);
    const from = Math.min(Math.max(0, start), length - span);
    const marks = ticks(from, from + span, viewer.gd.clientWidth < 640 ? 4 : 10);
    listenAlone();
    return window.Plotly.relayout(viewer.gd, {
      "xaxis.range": [from, from + span], "xaxis.tickvals": marks.values, "xaxis.ticktext": marks.texts,
    });
  }

  function zoom(factor, around) {
    const seen = windowSeen();
    const middle = around === undefined ? anchor(seen) : around;
    show(middle - (middle - seen.start) * factor, middle + (seen.end - middle) * factor);
  }

  // What zooming keeps in place: the player's cursor if it is seen, else the middle.
  function anchor(seen) {
    const at = window.spectralizePlayer ? window.spectralizePlayer.time() : null;
    return at !== null && at > seen.start && at < seen.end ? at : (seen.start + seen.end) / 2;
  }

  function move(share) {
    const seen = windowSeen();
    const by = (seen.end - seen.start) * share;
    show(seen.start + by, seen.end + by);
  }

  function onRelayout(change) {
    if (!Object.keys(change).some((name) => name.startsWith("xaxis.range") || name === "xaxis.autorange")) {
      return;
    }
    if (!("xaxis.tickvals" in change)) {
      // Somebody has dragged.
      const seen = change["xaxis.autorange"] ? { start: 0, end: viewer.facts.length } : windowSeen();
      setTimeout(show, 0, seen.start, seen.end);
      return;
    }
    tell();
    clearTimeout(asking);
    asking = setTimeout(ask, PAUSE_MS);
  }

  function ask() {
    if (!viewer || !viewer.gd.isConnected) {
      return;
    }
    viewer.number += 1;
    const seen = windowSeen();
    window.dash_clientside.set_props("viewer-view", {
      data: { number: viewer.number, start: seen.start, end: seen.end, width: document.documentElement.clientWidth },
    });
  }

  // Everything on the page that speaks of the window.
  function tell() {
    const seen = windowSeen();
    say("viewer-readout", viewer.hint);
    const isWhole = seen.end - seen.start > 0.999 * viewer.facts.length;
    const step = (seen.end - seen.start) / 1000;
    say(
      "viewer-window",
      clock(seen.start, Math.min(1, step)) + " to " + clock(seen.end, Math.min(1, step)) +
        (isWhole ? ", all of it" : " of " + clock(viewer.facts.length, 0.1))
    );
    const start = seen.start.toFixed(3);
    // Rounded up, it would lie behind the end.
    const end = (Math.floor(seen.end * 1000) / 1000).toFixed(3);
    const query = new URLSearchParams(window.location.search);
    const range = viewer.range;
    const settings = {
      start: isWhole ? null : start,
      end: isWhole ? null : end,
      colours: viewer.scale,
      low: range ? range[0] : null,
      high: range ? range[1] : null,
    };
    Object.entries(settings).forEach(function ([name, value]) {
      if (value === null || value === undefined) {
        query.delete(name);
      } else {
        query.set(name, value);
      }
    });
    const search = query.toString();
    window.history.replaceState(window.history.state, "", window.location.pathname + (search ? "?" + search : ""));
    document.querySelectorAll("a[data-base]").forEach(function (link) {
      const wanted = new URLSearchParams({ profile: link.dataset.profile });
      if (!isWhole) {
        wanted.set("start_s", start);
        wanted.set("end_s", end);
      }
      if (link.dataset.base.endsWith(".png")) {
        const axis = viewer.gd.layout.coloraxis;
        wanted.set("cmap", viewer.scale || viewer.facts.scale);
        wanted.set("low_db", axis.cmin / viewer.facts.unitsPerDb);
        wanted.set("high_db", axis.cmax / viewer.facts.unitsPerDb);
      }
      link.href = link.dataset.base + "?" + wanted;
    });
    const code = byId("recording-code");
    if (code) {
      const span = isWhole ? "" : start + ", " + end + ", ";
      code.textContent =
        "from spectralize import open_store\n\n" +
        "store = open_store()  # the database of SPECTRALIZE_DSN\n" +
        "recording = store.recording(" + JSON.stringify(code.dataset.uid) + ")\n" +
        "mel = recording.mel(" + span + "profile=" + JSON.stringify(code.dataset.profile) + ")  # dB, time by frequency\n" +
        "y = recording.audio(" + span.replace(/, $/, "") + ")  # samples, from S3\n";
    }
  }

  // What is under the pointer

  function cells(trace) {
    const z = trace.z;
    if (!z || !z.bdata) {
      return null;
    }
    if (!decoded.has(z)) {
      const bytes = Uint8Array.from(atob(z.bdata), (letter) => letter.charCodeAt(0));
      const [rows, columns] = z.shape.split(",").map(Number);
      decoded.set(z, { values: new Int16Array(bytes.buffer), rows: rows, columns: columns });
    }
    return decoded.get(z);
  }

  function level(trace, time, band) {
    const found = trace && trace.visible !== false ? cells(trace) : null;
    const column = found ? Math.floor((time - trace.x0) / trace.dx + 0.5) : -1;
    if (column < 0 || column >= found.columns || band < 0 || band >= found.rows) {
      return null;
    }
    return found.values[band * found.columns + column] / viewer.facts.unitsPerDb;
  }

  function pointed(event) {
    const box = viewer.gd.getBoundingClientRect();
    const margin = viewer.facts.margin;
    const seen = windowSeen();
    const x = (event.clientX - box.left - margin.l) / plotWidth();
    const height = viewer.gd.clientHeight - margin.t - margin.b;
    const y = 1 - (event.clientY - box.top - margin.t) / height;
    if (x < 0 || x > 1 || y < 0 || y > 1) {
      return null;
    }
    return { time: seen.start + x * (seen.end - seen.start), y: y, step: (seen.end - seen.start) / plotWidth() };
  }

  function read(event) {
    const at = pointed(event);
    if (!at) {
      return;
    }
    let text = clock(at.time, Math.max(0.001, Math.min(0.1, at.step)));
    viewer.strips.forEach(function (strip, number) {
      const axis = viewer.gd.layout["yaxis" + (2 * number + 2)];
      const share = (at.y - axis.domain[0]) / (axis.domain[1] - axis.domain[0]);
      if (share < 0 || share > 1) {
        return;
      }
      const hertz = strip.frequency_hz;
      const band = Math.min(hertz.length - 1, Math.floor(share * hertz.length));
      const data = viewer.gd.data;
      const first = number * viewer.facts.tracesPerStrip;
      let db = level(data[first + 2], at.time, band);
      if (db === null) {
        db = level(data[first + 1], at.time, band);
      }
      text += " · " + Math.round(hertz[band]).toLocaleString("en").replace(/,/g, "\u202f") + " Hz";
      if (db !== null) {
        text += " · " + db.toFixed(1).replace("-", "\u2212") + " dB";
      }
    });
    say("viewer-readout", text);
  }

  // Drawing

  function connect(gd, facts) {
    viewer = { gd: gd, facts: facts, number: 0, awaited: null, strips: gd.layout.meta.strips, scale: null, range: null };
    viewer.hint = byId("viewer-readout").textContent;
    // What the address says wrongly the server has left out, too.
    const query = new URLSearchParams(window.location.search);
    const scale = query.get("colours");
    viewer.scale = Object.hasOwn(facts.scales, scale) ? scale : null;
    const range = [query.get("low"), query.get("high")].map((text) => (text ? Number(text) : NaN));
    viewer.range = range[0] < range[1] ? range : null;
    if (!connected.has(gd)) {
      connected.add(gd);
      gd.on("plotly_afterplot", drawn);
      gd.addEventListener("pointermove", read);
      gd.addEventListener("pointerdown", onPress, true);
      gd.addEventListener("wheel", onWheel, { passive: false, capture: true });
      gd.addEventListener("pointerdown", onFinger);
      gd.addEventListener("pointermove", onFinger);
    }
    tell();
    drawn();
  }

  // Dash, told of a move, would draw all of its figure again. It begins to listen after us, so this is done late.
  function listenAlone() {
    viewer.gd.removeAllListeners("plotly_relayout");
    viewer.gd.on("plotly_relayout", onRelayout);
  }

  function drawn() {
    if (viewer && viewer.gd.querySelector(".heatmaplayer image, .hm image")) {
      if (!viewer.isDrawn) {
        viewer.isDrawn = true;
        performance.mark("spectralize:drawn");
      }
      if (viewer.awaited !== null && viewer.gd.data[0].meta === viewer.awaited) {
        viewer.awaited = null;
        performance.mark("spectralize:zoomed");
      }
      if (window.spectralizePlayer) {
        window.spectralizePlayer.place();
      }
    }
  }

  // Two fingers on a touchpad come as a wheel with the control key; without it the page scrolls as everywhere.
  function onWheel(event) {
    if (!event.ctrlKey) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const at = pointed(event);
    if (at) {
      zoom(Math.exp(Math.max(-50, Math.min(50, event.deltaY)) / 100), at.time);
    }
  }

  // Plotly keeps the browser from moving the focus here, and from telling of double clicks.
  function onPress(event) {
    pressed = { x: event.clientX, y: event.clientY };
    listenAlone();
    byId("viewer").focus({ preventScroll: true });
  }

  window.addEventListener("pointerup", function (event) {
    const from = pressed;
    pressed = null;
    if (!from || !viewer || !viewer.gd.isConnected || event.button !== 0) {
      return;
    }
    if (Math.hypot(event.clientX - from.x, event.clientY - from.y) >= STILL_PX) {
      return;
    }
    const isSecond = clicked && event.timeStamp - clicked.at < TWICE_MS &&
      Math.hypot(event.clientX - clicked.x, event.clientY - clicked.y) < 4 * STILL_PX;
    clicked = isSecond ? null : { at: event.timeStamp, x: event.clientX, y: event.clientY };
    const at = pointed(event);
    if (isSecond) {
      show(0, viewer.facts.length);
    } else if (at) {
      read(event);
      if (window.spectralizePlayer) {
        window.spectralizePlayer.seek(at.time);
      }
    }
  }, true);

  // Fingers: one moves the window, two hold the times under them; up and down is the page's. Plotly is told to keep out of it.

  function onFinger(event) {
    if (event.pointerType !== "touch" || (event.type === "pointermove" && !fingers.has(event.pointerId))) {
      return;
    }
    fingers.set(event.pointerId, event.clientX - viewer.gd.getBoundingClientRect().left - viewer.facts.margin.l);
    if (event.type === "pointerdown") {
      hold();
      return;
    }
    const [first, second] = [...fingers.values()];
    const span = held.seen.end - held.seen.start;
    const time = (x) => held.seen.start + (x / plotWidth()) * span;
    if (second === undefined) {
      const by = time(held.at[0]) - time(first);
      if (Math.abs(first - held.at[0]) >= STILL_PX) {
        follow(held.seen.start + by, held.seen.end + by);
      }
    } else if (Math.abs(second - first) > 8 * STILL_PX) {
      const closer = ((time(held.at[1]) - time(held.at[0])) * plotWidth()) / (second - first);
      const start = time(held.at[0]) - (first / plotWidth()) * closer;
      follow(start, start + closer);
    }
  }

  function hold() {
    held = { seen: windowSeen(), at: [...fingers.values()] };
  }

  // The last wish, as often as it can be drawn.
  function follow(start, end) {
    if (!(end > start)) {
      return;
    }
    const isDrawing = wish !== null;
    wish = { start: start, end: end };
    if (!isDrawing) {
      (function next() {
        const now = wish;
        show(now.start, now.end).then(function () {
          if (wish === now) {
            wish = null;
          } else {
            next();
          }
        });
      })();
    }
  }

  ["pointerup", "pointercancel"].forEach(function (name) {
    window.addEventListener(name, function (event) {
      if (fingers.delete(event.pointerId) && fingers.size && viewer && viewer.gd.isConnected) {
        hold();
      }
    });
  });

  // Links and the form of the page that compares: what they lead to is looked at as this is.
  const KEPT = ["start", "end", "colours", "low", "high"];

  document.addEventListener("click", function (event) {
    const link = event.target.closest ? event.target.closest("a[data-keeps]") : null;
    if (link) {
      const address = new URL(link.href);
      const query = new URLSearchParams(window.location.search);
      KEPT.filter((name) => query.has(name)).forEach((name) => address.searchParams.set(name, query.get(name)));
      link.href = address.href;
    }
  }, true);

  document.addEventListener("submit", function (event) {
    if (event.target.id === "compare-form") {
      const query = new URLSearchParams(window.location.search);
      KEPT.filter((name) => query.has(name)).forEach(function (name) {
        const input = document.createElement("input");
        Object.assign(input, { type: "hidden", name: name, value: query.get(name) });
        event.target.append(input);
      });
    }
  });

  document.addEventListener("click", function (event) {
    const button = event.target.closest ? event.target.closest("button, #viewer-loop") : null;
    if (!button || !viewer) {
      return;
    }
    if (event.detail > 0 && button.matches(BUTTONS)) {
      // Who presses with a mouse goes on with the keys of the picture.
      byId("viewer").focus({ preventScroll: true });
    }
    const actions = {
      "viewer-back": () => move(-0.25),
      "viewer-on": () => move(0.25),
      "viewer-in": () => zoom(0.5),
      "viewer-out": () => zoom(2),
      "viewer-whole": () => show(0, viewer.facts.length),
      "recording-copy": () => copy(button),
    };
    if (actions[button.id]) {
      actions[button.id]();
    }
  });

  function copy(button) {
    const code = byId("recording-code");
    const done = () => (button.textContent = "Copied");
    if (navigator.clipboard) {
      navigator.clipboard.writeText(code.textContent).then(done, () => select(code));
    } else {
      // Only pages from https or this very machine may write to the clipboard.
      select(code);
    }
  }

  function select(element) {
    window.getSelection().selectAllChildren(element);
  }

  document.addEventListener("keydown", function (event) {
    if (!viewer || !viewer.gd.isConnected || event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) {
      return;
    }
    // Only where nothing else has the keyboard; a button needs no more of it than to be pressed.
    const isButton = event.target.closest(BUTTONS) && event.key !== " ";
    if (document.activeElement !== document.body && !event.target.closest("#viewer") && !isButton) {
      return;
    }
    const player = window.spectralizePlayer;
    const actions = {
      " ": () => player.toggle(),
      ArrowLeft: () => (event.shiftKey ? player.seek(player.time() - 1) : move(-0.25)),
      ArrowRight: () => (event.shiftKey ? player.seek(player.time() + 1) : move(0.25)),
      "+": () => zoom(0.5),
      "=": () => zoom(0.5),
      "-": () => zoom(2),
      0: () => show(0, viewer.facts.length),
      l: () => player.toggleLoop(),
      L: () => player.toggleLoop(),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });

  window.spectralizeViewer = {
    isThere: () => viewer !== null && viewer.gd.isConnected,
    seen: () => windowSeen(),
    show: show,
    // Where a time is, in pixels from the left of the viewer, or null if it is not seen.
    place: function (time) {
      const seen = windowSeen();
      if (time < seen.start || time > seen.end) {
        return null;
      }
      return viewer.facts.margin.l + ((time - seen.start) / (seen.end - seen.start)) * plotWidth();
    },
  };

  window.dash_clientside.viewer = Object.assign(window.dash_clientside.viewer || {}, {
    // A page with a viewer has come, or its figure has been exchanged.
    attach: function (facts) {
      const nothing = window.dash_clientside.no_update;
      if (!facts) {
        return nothing;
      }
      (function wait() {
        const gd = document.querySelector("#viewer-graph .js-plotly-plot");
        if (gd && gd.on && gd.layout && gd.layout.meta && gd.layout.xaxis) {
          connect(gd, facts);
        } else if (byId("viewer-graph")) {
          window.requestAnimationFrame(wait);
        }
      })();
      return nothing;
    },

    // The server has read a window.
    draw: function (columns) {
      const nothing = window.dash_clientside.no_update;
      if (!columns || !viewer || !viewer.gd.isConnected || columns.number !== viewer.number) {
        return nothing;
      }
      if (columns.error) {
        say("viewer-readout", columns.error);
        return nothing;
      }
      // By way of Dash: whenever it draws again, it does so with the data that it knows.
      const data = viewer.gd.data.slice();
      columns.strips.forEach(function (strip, number) {
        const first = number * viewer.facts.tracesPerStrip;
        const last = first + viewer.facts.tracesPerStrip - 1;
        const axes = { xaxis: data[first].xaxis, yaxis: data[first].yaxis };
        data[first] = Object.assign({}, strip.wave, axes, { meta: columns.number });
        data[last] = Object.assign({}, strip.mel, { xaxis: data[last].xaxis, yaxis: data[last].yaxis });
      });
      viewer.awaited = columns.number;
      return { data: data, layout: structuredClone(viewer.gd.layout) };
    },

    colour: function (scale, range) {
      const nothing = window.dash_clientside.no_update;
      if (!viewer || !viewer.gd.isConnected || !range) {
        return nothing;
      }
      viewer.scale = scale;
      viewer.range = range;
      listenAlone();
      window.Plotly.relayout(viewer.gd, {
        "coloraxis.colorscale": viewer.facts.scales[scale],
        "coloraxis.cmin": range[0] * viewer.facts.unitsPerDb,
        "coloraxis.cmax": range[1] * viewer.facts.unitsPerDb,
      });
      tell();
      return nothing;
    },

    // Another profile is another page: its bands, and so its picture, are others.
    profile: function (name) {
      const code = byId("recording-code");
      if (!name || !code || code.dataset.profile === name) {
        return window.dash_clientside.no_update;
      }
      const query = new URLSearchParams(window.location.search);
      query.set("profile", name);
      window.history.replaceState(window.history.state, "", window.location.pathname + "?" + query);
      return window.dash_clientside.explorer.visitHere();
    },
  });
})();
