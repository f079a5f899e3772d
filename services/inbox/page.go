package inbox

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"path"
)

const assetPath = "/_inbox/assets/"

//go:embed page
var files embed.FS

// page serves the browser's side. The two documents contain nothing that was
// received: their script loads it as JSON, and shows it as text.
type page struct {
	templates *template.Template
}

func newPage() *page {
	return &page{templates: template.Must(template.ParseFS(files, "page/*.html"))}
}

func (p *page) serveIndex(w http.ResponseWriter)            { p.serve(w, "index.html", "") }
func (p *page) serveBin(w http.ResponseWriter, name string) { p.serve(w, "bin.html", name) }

func (p *page) serve(w http.ResponseWriter, document, name string) {
	var out bytes.Buffer
	if err := p.templates.ExecuteTemplate(&out, document, struct{ Bin string }{name}); err != nil {
		writeProblem(w, http.StatusInternalServerError, "the page could not be written")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Vary", "Accept")
	_, _ = w.Write(out.Bytes()) // the client may be gone
}

func (p *page) serveAsset(w http.ResponseWriter, r *http.Request, name string) {
	kinds := map[string]string{
		".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
	kind, ok := kinds[path.Ext(name)]
	text, err := files.ReadFile("page/" + path.Base(name))
	if !ok || err != nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
		writeProblem(w, http.StatusNotFound, "there is nothing here")
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(text) //nolint:gosec // an embedded file; the client may be gone
}
