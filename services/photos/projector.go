package photos

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"posthorn/services/internal/eventlog"
)

// Config of a Projector.
type Config struct {
	DB     *sql.DB
	Logger *slog.Logger
	// Interval between polls of the log. Default 250 ms: reads of a count add
	// the likes that are not projected yet.
	Interval time.Duration
	// Window limits the positions that one commit projects. Default 10,000.
	Window int
}

// awaitFor is how long one wait for new records lasts.
const awaitFor = time.Second

// Projector projects likes from the log into the counts.
type Projector struct{ cfg Config }

// NewProjector returns a Projector, or an error that names the missing setting.
func NewProjector(cfg Config) (*Projector, error) {
	if cfg.DB == nil {
		return nil, errors.New("photos: DB is missing")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 250 * time.Millisecond
	}
	if cfg.Window <= 0 {
		cfg.Window = 10_000
	}
	return &Projector{cfg: cfg}, nil
}

// Run projects until ctx ends. Several may run; one of them works at a time.
func (p *Projector) Run(ctx context.Context) error {
	done, failing := int64(-1), false
	for {
		horizon, err := eventlog.AwaitHorizon(ctx, p.cfg.DB, done, p.cfg.Interval, awaitFor)
		idle := horizon == done
		if err == nil && !idle {
			var through int64
			if through, err = p.catchUp(ctx, horizon, nil); err == nil && through >= horizon {
				done = horizon
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // ctx has ended
		case err != nil && !failing:
			p.cfg.Logger.WarnContext(ctx, "like counts are falling behind", slog.Any("error", err))
		case err == nil && failing:
			p.cfg.Logger.InfoContext(ctx, "like counts are up to date again")
		}
		if failing = err != nil; failing {
			done = -1 // the database that comes back may be another one, so read its position again
		}
		if idle && !failing {
			continue // the server has waited
		}
		// Pause before the next poll: under load there would be a transaction
		// for every few records.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(p.cfg.Interval):
		}
	}
}

// Rebuild discards the counts and computes them again from the log. Reads of a
// count stay correct while it runs. It reports its progress to progress, which
// may be nil. If the beginning of the log has been dropped, it fails with
// ErrLogIncomplete and changes nothing.
func (p *Projector) Rebuild(ctx context.Context, progress func(position, end int64)) error {
	end, err := eventlog.Horizon(ctx, p.cfg.DB)
	if err != nil {
		return fmt.Errorf("rebuild like counts: %w", err)
	}
	if err := ResetPhotos(ctx, p.cfg.DB); err != nil {
		return fmt.Errorf("rebuild like counts: %w", err)
	}
	report := func(through int64) {
		if progress != nil {
			progress(min(through, end), end)
		}
	}
	ticker := time.NewTicker(p.cfg.Interval)
	defer ticker.Stop()
	for {
		through, err := p.catchUp(ctx, end, report)
		if err != nil {
			return fmt.Errorf("rebuild like counts: %w", err)
		}
		if through >= end {
			return nil
		}
		// Another process is projecting; its work counts too.
		select {
		case <-ctx.Done():
			return fmt.Errorf("rebuild like counts: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// catchUp projects up to the horizon and returns the position that the counts
// have reached, or -1 if another process leads.
func (p *Projector) catchUp(ctx context.Context, horizon int64, report func(through int64)) (int64, error) {
	for {
		through, led, err := ProjectPhotos(ctx, p.cfg.DB, horizon, p.cfg.Window)
		switch {
		case err != nil:
			return 0, fmt.Errorf("project photos: %w", err)
		case !led:
			return -1, nil
		}
		if report != nil {
			report(through)
		}
		if through >= horizon {
			return through, nil
		}
	}
}
