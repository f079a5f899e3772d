package inbox

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxSettings = 64 << 10
	// heartbeat keeps proxies from closing a page's connection, and detects a
	// browser that is gone.
	heartbeat = 15 * time.Second
)

// serveControl serves the API:
//
//	GET                /bins                 the bins
//	GET PUT DELETE     /bins/{bin}           one of them: requests and settings, settings, all of it
//	GET DELETE         /bins/{bin}/requests  its requests
//	GET                /bins/{bin}/changes   a stream of events, one at every change
//	GET                /changes              the same for all bins
//
// A bin's name may hold slashes. If it ends in one of the words above, the
// slash before it has to be escaped (%2F).
func (i *Inbox) serveControl(w http.ResponseWriter, r *http.Request, path string) {
	// A page of another site must not clear or set anything here.
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		writeProblem(w, http.StatusForbidden, "a page of another site asked for this")
		return
	}
	switch path {
	case "/bins":
		i.serveIfGet(w, r, func() { writeJSON(w, i.store.list()) })
		return
	case "/changes":
		i.serveIfGet(w, r, func() { i.serveChanges(w, r, "") })
		return
	}
	escaped, ok := strings.CutPrefix(path, "/bins/")
	escaped, requests := strings.CutSuffix(escaped, "/requests")
	escaped, changes := strings.CutSuffix(escaped, "/changes")
	unescaped, err := url.PathUnescape(escaped)
	name, valid := binName(unescaped)
	switch {
	case !ok || err != nil || !valid || requests && changes:
		writeProblem(w, http.StatusNotFound, "there is nothing here; see /_inbox/bins")
	case changes:
		i.serveIfGet(w, r, func() { i.serveChanges(w, r, name) })
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		if requests {
			writeJSON(w, i.view(r, name).Requests)
			return
		}
		i.writeView(w, r, name)
	case r.Method == http.MethodDelete && requests:
		i.store.clear(name)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodDelete:
		i.store.delete(name)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut && !requests:
		i.configure(w, r, name)
	default:
		writeProblem(w, http.StatusMethodNotAllowed, "this method is not for this path")
	}
}

func (i *Inbox) serveIfGet(w http.ResponseWriter, r *http.Request, serve func()) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		writeProblem(w, http.StatusMethodNotAllowed, "this can be read only")
		return
	}
	serve()
}

func (i *Inbox) configure(w http.ResponseWriter, r *http.Request, name string) {
	var settings Settings
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSettings))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&settings)
	if err == nil {
		err = settings.validate()
	}
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	i.store.configure(name, settings)
	writeJSON(w, i.store.view(name, 0).Settings)
}

// serveChanges sends a server-sent event at the start and for every change. It
// says only that there was a change: the page then loads the current state.
func (i *Inbox) serveChanges(w http.ResponseWriter, r *http.Request, name string) {
	watcher, ok := i.store.watch(name)
	if !ok {
		writeProblem(w, http.StatusServiceUnavailable, "too many pages are open")
		return
	}
	defer i.store.unwatch(watcher)
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for text := "event: changed\ndata: {}\n\n"; ; {
		// Not every writer has deadlines; without one the server's own applies.
		_ = control.SetWriteDeadline(time.Now().Add(heartbeat))
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-watcher.changed:
			text = "event: changed\ndata: {}\n\n"
		case <-ticker.C:
			text = ": still here\n\n"
		case <-r.Context().Done():
			return
		case <-i.closing.Done():
			return
		}
	}
}

func (i *Inbox) writeView(w http.ResponseWriter, r *http.Request, name string) {
	w.Header().Set("Vary", "Accept")
	writeJSON(w, i.view(r, name))
}

// view honours ?after=12, only later requests, and ?raw=1, the bodies' exact
// text.
func (i *Inbox) view(r *http.Request, name string) View {
	query := r.URL.Query()
	after, err := strconv.Atoi(query.Get("after"))
	if err != nil {
		after = 0 // everything
	}
	view := i.store.view(name, after)
	if query.Get("raw") == "1" {
		return view
	}
	for n := range view.Requests {
		if one := &view.Requests[n]; one.isJSON {
			one.JSON, one.Body = json.RawMessage(one.Body), ""
		}
	}
	return view
}

func writeJSON(w http.ResponseWriter, value any) {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		writeProblem(w, http.StatusInternalServerError, "the answer could not be written")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // the client may be gone
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	text, err := json.Marshal(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
	if err != nil { // cannot happen: texts and a number
		text = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client may be gone
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		_, _ = io.WriteString(w, text) // the client may be gone
	}
}
