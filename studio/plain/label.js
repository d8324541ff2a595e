// The Label page without Gradio: the same module, in a page that holds nothing else.
const element = document.getElementById("label-page");
import(new URL(element.dataset.module, document.baseURI)).then(
  (page) => page.mount(element),
  () => { element.textContent = "The Label page could not be loaded; reload it."; },
);
