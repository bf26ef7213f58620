"""The pages: plain HTML, CSS and JavaScript. No Python lives here."""
