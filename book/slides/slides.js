/* One slide at a time, by keys, buttons or address (#3). Without this script all of them are below each other, with their notes. */
const slides = [...document.querySelectorAll(".slide")];
const place = document.querySelector("nav output");
let at = 0;

function show(wanted, focus = true) {
    at = Math.max(0, Math.min(slides.length - 1, wanted));
    slides.forEach((slide, number) => slide.classList.toggle("shown", number === at));
    place.textContent = `${at + 1} / ${slides.length}`;
    history.replaceState(null, "", `#${at + 1}`);
    scrollTo(0, 0);
    if (focus) slides[at].focus({ preventScroll: true });
}

function notes() {
    const hidden = document.body.classList.toggle("quiet");
    document.querySelector("[data-do=notes]").setAttribute("aria-pressed", String(!hidden));
}

const doing = { back: () => show(at - 1), next: () => show(at + 1), notes, print: () => print() };
const keys = {
    ArrowRight: "next", ArrowDown: "next", PageDown: "next", " ": "next", Enter: "next",
    ArrowLeft: "back", ArrowUp: "back", PageUp: "back", n: "notes", N: "notes", p: "print", P: "print",
};

document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("nav") && [" ", "Enter"].includes(event.key)) return;
    if (event.key === "Home") show(0);
    else if (event.key === "End") show(slides.length - 1);
    else if (keys[event.key]) doing[keys[event.key]]();
    else return;
    event.preventDefault();
});
document.querySelector("nav").addEventListener("click", (event) => {
    const action = event.target.dataset.do;
    if (action) doing[action]();
});
addEventListener("hashchange", () => show((parseInt(location.hash.slice(1), 10) || 1) - 1));
document.body.classList.add("one", "quiet");
document.querySelector("nav").hidden = false;
show((parseInt(location.hash.slice(1), 10) || 1) - 1, false);
