// Dark where the system is dark, as on Gradio's pages; before the first paint, so nothing flashes. `?__theme=` overrules it.
const asked = new URLSearchParams(location.search).get("__theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const apply = () => document.documentElement.classList.toggle("dark", asked ? asked === "dark" : dark.matches);
dark.addEventListener("change", apply);
apply();
