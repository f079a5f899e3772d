package relay

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"posthorn/events"
	"posthorn/services/internal/eventlog"
	"posthorn/services/internal/ledger"
	"posthorn/services/internal/subscription"
)

// changeRecord returns the record of a change at a position.
func changeRecord(t *testing.T, position int64, id subscription.ID, status subscription.Status) eventlog.Record {
	t.Helper()
	data, err := subscription.Record{ID: id, Account: "default", EventTypes: []events.Pattern{"T"}, Status: status, Version: 1}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return eventlog.Record{
		Kind: eventlog.KindSubscription,
		Event: events.Event{
			Position: position, ID: fmt.Sprint("r", position), Account: "default", Type: subscription.RecordType, Subject: string(id), Data: data,
		},
	}
}

func eventRecord(position int64) eventlog.Record {
	return eventlog.Record{Kind: eventlog.KindEvent, Event: events.Event{Position: position, ID: fmt.Sprint("e", position), Account: "default", Type: "T"}}
}

func TestChangesOfDifferentSubscriptionsAreAppliedTogether(t *testing.T) {
	t.Parallel()
	known := route("default", subscription.Active, "T")
	known.Since = 5
	a, b := subscription.NewID(), subscription.NewID()
	active := subscription.Active
	many := make([]eventlog.Record, 100)
	for i := range many {
		many[i] = changeRecord(t, int64(i+1), subscription.NewID(), active)
	}
	spoilt := changeRecord(t, 2, b, active)
	spoilt.Data = []byte(`{`)
	for name, c := range map[string]struct {
		records []eventlog.Record
		want    []int64 // positions
		aside   []int64
	}{
		"one":                            {[]eventlog.Record{changeRecord(t, 1, a, active)}, []int64{1}, nil},
		"two":                            {[]eventlog.Record{changeRecord(t, 1, a, active), changeRecord(t, 2, b, active)}, []int64{1, 2}, nil},
		"up to an event":                 {[]eventlog.Record{changeRecord(t, 1, a, active), eventRecord(2), changeRecord(t, 3, b, active)}, []int64{1}, nil},
		"up to the same subscription":    {[]eventlog.Record{changeRecord(t, 1, a, active), changeRecord(t, 2, b, active), changeRecord(t, 3, a, subscription.Deleted)}, []int64{1, 2}, nil},
		"past one that cannot be read":   {[]eventlog.Record{changeRecord(t, 1, a, active), spoilt, changeRecord(t, 3, known.ID, active)}, []int64{1, 2, 3}, []int64{2}},
		"as many as are applied at once": {many, positionsOf(many[:changesAtOnce]), nil},
	} {
		batch := batch{term: &term{routes: newRoutes([]Route{known})}}
		changes := batch.leadingChanges(c.records)
		var got []int64
		for _, change := range changes {
			got = append(got, change.position)
			switch id := change.route.ID; {
			case id == known.ID && (!change.known || change.route.Since != 5):
				t.Errorf("%s: a known subscription is treated as new: %+v", name, change)
			case id != "" && id != known.ID && (change.known || change.route.Since != change.position):
				t.Errorf("%s: a new subscription starts at %d, want its record's position %d", name, change.route.Since, change.position)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		var aside []int64
		for _, q := range batch.progress.SetAside {
			aside = append(aside, q.Position)
		}
		if diff := cmp.Diff(c.aside, aside); diff != "" {
			t.Errorf("%s: set aside (-want +got):\n%s", name, diff)
		}
	}
}

func positionsOf(records []eventlog.Record) (list []int64) {
	for i := range records {
		list = append(list, records[i].Position)
	}
	return list
}

func TestProgressIsTruncatedToCompletedRecords(t *testing.T) {
	t.Parallel()
	whole := func() Progress {
		p := Progress{From: 10, Through: 20}
		for position := range int64(10) {
			p.Owed = append(p.Owed, ledger.Owed{Position: 11 + position})
		}
		p.SetAside = []eventlog.Quarantined{{Position: 12}, {Position: 18}}
		return p
	}
	for at, want := range map[int64]struct {
		through int64
		owed    int
		aside   []int64
	}{
		11: {10, 0, nil}, 12: {11, 1, nil}, 13: {12, 2, []int64{12}}, 18: {17, 7, []int64{12}}, 20: {19, 9, []int64{12, 18}}, 21: {20, 10, []int64{12, 18}},
	} {
		b := batch{progress: whole()}
		b.truncate(at)
		var aside []int64
		for _, q := range b.progress.SetAside {
			aside = append(aside, q.Position)
		}
		if b.progress.Through != want.through || len(b.progress.Owed) != want.owed || !slices.Equal(aside, want.aside) {
			t.Errorf("truncated at %d: through %d, %d owed, set aside %v, want %+v", at, b.progress.Through, len(b.progress.Owed), aside, want)
		}
		if b.progress.From != 10 {
			t.Errorf("truncated at %d: from %d, want 10", at, b.progress.From)
		}
	}
}
