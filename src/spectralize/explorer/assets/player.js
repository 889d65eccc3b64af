// The player beside the viewer: its cursor moves over the picture, a click in the picture is heard, a window is looped.
(function () {
  "use strict";

  const handled = new WeakSet();
  let audio = null;
  let isLooping = false;
  let isPlaying = false;
  let frame = null;

  function viewer() {
    return window.spectralizeViewer && window.spectralizeViewer.isThere() ? window.spectralizeViewer : null;
  }

  function say(text) {
    const element = document.getElementById("recording-audio-error");
    if (element) {
      element.textContent = text;
    }
  }

  function place() {
    const cursor = document.getElementById("viewer-cursor");
    const view = viewer();
    if (!cursor || !view || !audio) {
      return;
    }
    const left = view.place(audio.currentTime);
    cursor.hidden = left === null;
    if (left !== null) {
      cursor.style.transform = "translateX(" + left.toFixed(1) + "px)";
    }
  }

  function step() {
    const view = viewer();
    if (audio && view && !audio.paused) {
      const seen = view.seen();
      const at = audio.currentTime;
      if (isLooping && (at >= seen.end - 0.005 || at < seen.start - 0.05)) {
        audio.currentTime = seen.start;
      } else if (!isLooping && (at > seen.end || at < seen.start) && !audio.seeking) {
        // The picture turns its page.
        view.show(at, at + seen.end - seen.start);
      }
      frame = window.requestAnimationFrame(step);
    }
    place();
  }

  function go() {
    window.cancelAnimationFrame(frame);
    frame = window.requestAnimationFrame(step);
  }

  function whenReady(work) {
    if (audio.readyState >= 1) {
      work();
    } else {
      audio.addEventListener("loadedmetadata", work, { once: true });
      audio.load();
    }
  }

  function play() {
    audio.play().catch(function (error) {
      if (error.name === "NotAllowedError") {
        say("The browser wants you to press play yourself.");
      }
    });
  }

  // What this browser cannot decode, the server does: once.
  function onError() {
    const fallback = audio.dataset.fallback;
    if (fallback && !audio.src.endsWith(fallback)) {
      const at = audio.currentTime;
      audio.src = fallback;
      whenReady(() => (audio.currentTime = at));
      return;
    }
    say("This recording cannot be played: its object is gone from the bucket, was overwritten, or S3 is away.");
  }

  // The same page was made anew, as for another theme: what was heard goes on.
  function resume(before, wasLooping) {
    const at = before.currentTime;
    const goesOn = isPlaying;
    if (at > 0) {
      whenReady(function () {
        audio.currentTime = at;
        if (goesOn) {
          play();
        }
      });
    }
    if (wasLooping) {
      window.spectralizePlayer.toggleLoop();
    }
  }

  function attach() {
    const found = document.getElementById("recording-audio");
    if (found === audio) {
      return;
    }
    const before = audio;
    const wasLooping = isLooping;
    audio = found;
    isLooping = false;
    if (audio && !handled.has(audio)) {
      handled.add(audio);
      if (before && before.getAttribute("src") === audio.getAttribute("src")) {
        resume(before, wasLooping);
      } else {
        isPlaying = false;
      }
      audio.addEventListener("play", go);
      audio.addEventListener("play", () => (isPlaying = true));
      audio.addEventListener("pause", (event) => (isPlaying = isPlaying && !event.target.isConnected));
      ["pause", "seeked", "timeupdate", "loadedmetadata"].forEach((name) => audio.addEventListener(name, place));
      audio.addEventListener("error", onError);
      if (audio.error) {
        onError();
      }
    }
  }

  new MutationObserver(attach).observe(document.documentElement, { childList: true, subtree: true });
  window.addEventListener("resize", () => window.requestAnimationFrame(place));

  window.spectralizePlayer = {
    time: () => (audio && audio.readyState >= 1 ? audio.currentTime : null),
    place: place,
    seek: function (time) {
      if (audio) {
        whenReady(function () {
          audio.currentTime = Math.max(0, Math.min(time, audio.duration || time));
        });
      }
    },
    toggle: function () {
      if (audio && audio.paused) {
        play();
      } else if (audio) {
        audio.pause();
      }
    },
    toggleLoop: function () {
      const box = document.getElementById("viewer-loop");
      if (box) {
        box.click();
      }
    },
  };

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.viewer = Object.assign(window.dash_clientside.viewer || {}, {
    loop: function (isOn) {
      isLooping = isOn === true;
      return window.dash_clientside.no_update;
    },
  });
})();
