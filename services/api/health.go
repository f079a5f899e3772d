package api

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/readiness"
)

// readyTimeout is how long /readyz waits for the database.
const readyTimeout = 2 * time.Second

func (a *API) routeHealth(r chi.Router) {
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, Health{Status: "ok", Version: a.cfg.Version})
	})
	r.Get("/readyz", a.cfg.Readiness.ServeHTTP)
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(a.cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelWarn),
	}))
	r.Get("/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(a.document) // an error means that the client is gone
	})
	a.routeDocs(r)
}

// ready reports any failure that keeps the API from accepting events.
func (a *API) ready(ctx context.Context) readiness.Report {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := a.cfg.Operations.Ready(ctx)
	if err == nil {
		return readiness.Report{}
	}
	a.cfg.Logger.WarnContext(ctx, "not ready", slog.Any("error", err))
	return readiness.Report{Problems: []string{cmp.Or(postgres.Describe(err), "the database cannot be used")}}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		problem(http.StatusInternalServerError, "").write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // an error means that the client is gone
}
