// Lets a form with the attribute data-submit-once be sent once, however often its button is clicked.
document.addEventListener("submit", (event) => {
  // Do nothing for a form that another script sends, which may fail and stay on this page.
  if (event.target.matches("[data-submit-once]") && !event.defaultPrevented) {
    const button = event.target.querySelector("button");
    button.disabled = true;
    // If the person stops loading the next page, the browser stays here and does not say so.
    setTimeout(() => { button.disabled = false; }, 5000);
  }
});

// A browser that goes back may show the page as it was left.
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("[data-submit-once] button")) button.disabled = false;
});
