package e2e_test

import (
	"math/rand/v2"
	"net/http"
	"testing"

	"posthorn/services/internal/audit"
)

// Subscriptions are created, changed and deleted while events flow through the
// whole system, and the relay is replaced. The audit finds nothing, and detects
// the deliveries that are then removed.
func TestAnAuditOfABusySystemIsClean(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "")
	s.startAPI()
	stop := s.startRelay()
	s.startDelivery(nil)
	target := newSubscriber(t, nil)
	random := rand.New(rand.NewPCG(5, 6))
	types := []string{"A", "A.B", "B.C", "C"}
	patterns := []string{"A", "A.*", "#", "B.#", "C"}
	var ids []string
	for i := range 60 {
		switch n := random.IntN(6); {
		case n == 0 || len(ids) == 0:
			ids = append(ids, s.subscribe(target.URL, nil, patterns[random.IntN(len(patterns))]).ID)
		case n == 1:
			path := "/subscription/" + ids[random.IntN(len(ids))]
			if random.IntN(4) == 0 {
				s.do(http.MethodDelete, path, nil, nil) // it may be gone already
				continue
			}
			change := map[string]any{
				"eventTypes": []string{patterns[random.IntN(len(patterns))]},
				"status":     []string{"active", "active", "paused", "disabled"}[random.IntN(4)],
			}
			s.do(http.MethodPatch, path, change, nil) // it may be gone
		default:
			s.post(types[random.IntN(len(types))], 1+random.IntN(20))
		}
		if i == 30 {
			stop()
			s.startRelay()
		}
	}
	eventually(t, patience, "the relay is at the end of the log", s.relayed)
	report, err := audit.Run(t.Context(), s.db, audit.Options{
		Found: func(f audit.Finding) error { t.Errorf("found %+v", f); return nil },
	})
	if err != nil || report.Owed == 0 || report.Owed != report.Deliveries {
		t.Errorf("%+v, %v", report, err)
	}

	eventually(t, patience, "some of them are delivered", func() bool {
		var delivered bool
		err := s.db.QueryRowContext(t.Context(), `
			SELECT EXISTS (SELECT FROM posthorn.deliveries WHERE position % 3 = 0 AND status = 'delivered')`).Scan(&delivered)
		return err == nil && delivered
	})
	var lost int64
	if err := s.db.QueryRowContext(t.Context(), `
		WITH gone AS (DELETE FROM posthorn.deliveries WHERE position % 3 = 0 AND status = 'delivered' RETURNING 1)
		SELECT count(*) FROM gone`).Scan(&lost); err != nil || lost == 0 {
		t.Fatal(lost, err)
	}
	report, err = audit.Run(t.Context(), s.db, audit.Options{Repair: true})
	if err != nil || report.Found[audit.Lost] != lost || report.Repaired != lost {
		t.Errorf("%d are lost: %+v, %v", lost, report, err)
	}
}
