package api

import (
	"embed"
	"net/http"

	"github.com/go-chi/chi/v5"
)

// docs is the page that shows the OpenAPI document. It is our own because the
// usual ones load from a third-party server, or weigh megabytes.
//
//go:embed docs
var docs embed.FS

func (a *API) routeDocs(r chi.Router) {
	for path, file := range map[string]struct{ name, media string }{
		"/docs":           {"docs/index.html", "text/html; charset=utf-8"},
		"/docs/style.css": {"docs/style.css", "text/css; charset=utf-8"},
		"/docs/script.js": {"docs/script.js", "text/javascript; charset=utf-8"},
	} {
		r.Get(path, func(w http.ResponseWriter, _ *http.Request) {
			content, err := docs.ReadFile(file.name)
			if err != nil {
				problem(http.StatusInternalServerError, "").write(w)
				return
			}
			h := w.Header()
			h.Set("Content-Type", file.media)
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			_, _ = w.Write(content) // an error means that the client is gone
		})
	}
}
