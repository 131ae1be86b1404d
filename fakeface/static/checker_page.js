// What Voila's script asks of a page: a function that shows the cells, called when its own part is ready.
window.voila_finish = () => {
  document.getElementById("loading")?.remove();
  document.getElementById("rendered_cells").hidden = false;
};
window.voila_process = window.voila_heartbeat = () => {};
window.cellLoaded = true;
setTimeout(() => {
  const loading = document.getElementById("loading");
  if (loading) loading.textContent = "The page has not started within a minute. Reload it; if that does not help, start `fakeface serve` anew.";
}, 60000);
