package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"posthorn/services/internal/postgres"
)

// readyTimeout is how long /readyz waits for the database.
const readyTimeout = 2 * time.Second

func (a *API) routeHealth(r chi.Router) {
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok", "version": a.cfg.Version})
	})
	r.Get("/readyz", a.ready)
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(a.cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelWarn),
	}))
	r.Get("/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(a.document) // nobody is left to tell
	})
	a.routeDocs(r)
}

func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	err := postgres.CheckSchema(ctx, a.cfg.DB)
	if err == nil {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
		return
	}
	// The driver's words may hold addresses; what they mean is enough.
	reason := "the database cannot be reached"
	if errors.Is(err, postgres.ErrSchemaOutdated) {
		reason = err.Error()
	}
	a.cfg.Logger.WarnContext(r.Context(), "not ready", slog.Any("error", err))
	w.Header().Set("Retry-After", retryAfter)
	writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": reason})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		problem(http.StatusInternalServerError, "").write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // nobody is left to tell
}
