// A button beside a text: copies it, or saves it as the file it is called. Where the browser allows no copying it is selected.
element.addEventListener('click', async e => {
  const button = e.target.closest('button[data-text]');
  if (!button) return;
  const pre = element.querySelector('#' + button.dataset.text);
  if (button.dataset.file) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([pre.textContent], {type: 'text/plain'}));
    link.download = button.dataset.file;
    link.click();
    URL.revokeObjectURL(link.href);
    return;
  }
  const was = button.textContent;
  try {
    await navigator.clipboard.writeText(pre.textContent);
    button.textContent = 'Copied';
  } catch (error) {
    getSelection().selectAllChildren(pre);
    button.textContent = 'Selected: press Ctrl C';
  }
  setTimeout(() => (button.textContent = was), 2000);
});
