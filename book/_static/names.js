/* Names that the theme leaves out, or gives beside the visible ones, put right for screen readers. */
addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
  for (const summary of document.querySelectorAll("summary")) {
    if (!summary.textContent.trim() && !summary.hasAttribute("aria-label")) summary.setAttribute("aria-label", "Pages of this part");
  }
  for (const part of document.querySelectorAll(".citation-list, .citation-list .citation")) part.removeAttribute("role");
});
