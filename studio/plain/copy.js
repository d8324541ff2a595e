// A button beside a link that is shown once: copies it, or selects it where the browser does not let us.
for (const button of document.querySelectorAll("button[data-copy]")) {
  const box = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    box.select();
    try {
      await navigator.clipboard.writeText(box.value);
      button.textContent = "Copied";
    } catch (error) {
      button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    }
  });
}
