// Loaded before the page is drawn, so that a chosen theme does not flash. Buttons: <button data-theme-switch>.
(() => {
  "use strict";
  const root = document.documentElement;
  const KEY = "gpt4rec.theme";
  const ORDER = ["auto", "light", "dark"];
  const kept = () => {
    try {
      const theme = localStorage.getItem(KEY);
      return ORDER.includes(theme) ? theme : "auto";
    } catch {
      return "auto"; // storage is off
    }
  };
  const show = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      button.textContent = `Theme: ${theme}`;
    }
    root.dispatchEvent(new CustomEvent("themechange"));
  };
  show(kept());
  document.addEventListener("DOMContentLoaded", () => {
    show(kept());
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      button.addEventListener("click", () => {
        const now = root.getAttribute("data-theme") || "auto";
        const next = ORDER[(ORDER.indexOf(now) + 1) % ORDER.length];
        try {
          localStorage.setItem(KEY, next);
        } catch {
          // the theme applies to this page only
        }
        show(next);
      });
    }
  });
})();
