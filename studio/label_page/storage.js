// What this browser remembers of how a person likes the page. A preference that is forgotten harms nobody, so a browser that allows no
// storage is no error.

export function recall(key) {
  try {
    return localStorage.getItem(key) || "";
  } catch (error) {
    return "";
  }
}

export function remember(key, value) {
  try {
    if (value) localStorage.setItem(key, value);
    else localStorage.removeItem(key);
  } catch (error) {
    // Forgotten, then.
  }
}

export function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    return null;
  }
}
