/* Names that the theme leaves out, or gives beside the visible ones, put right for screen readers. */
addEventListener("DOMContentLoaded", () => {
  for (const named of document.querySelectorAll(".search-button-field, .theme-switch-button, summary[aria-label]")) {
    named.removeAttribute("aria-label"); // its text, or the title of its icon, is its name
  }
  for (const summary of document.querySelectorAll("summary")) {
    if (!summary.textContent.trim()) summary.setAttribute("aria-label", "Pages of this part");
  }
  for (const part of document.querySelectorAll(".citation-list, .citation-list .citation")) part.removeAttribute("role");
});
