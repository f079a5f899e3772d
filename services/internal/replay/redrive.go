package replay

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"posthorn/services/internal/ledger"
	"posthorn/services/internal/postgres"
)

// RedriveDelivery has one delivery made anew that is finished, however it
// ended, or waits for a retry. ErrState where it is under way.
func RedriveDelivery(ctx context.Context, db *sql.DB, account string, id ledger.DeliveryID) (Replay, error) {
	d, err := ledger.ByID(ctx, db, account, id)
	if err != nil {
		return Replay{}, err
	}
	if d.Status == ledger.Pending {
		return Replay{}, fmt.Errorf("the delivery is %s: %w", d.Status, postgres.ErrState)
	}
	return Create(ctx, db, Selection{
		Account: account, Subscription: id.Subscription, Cause: CauseRedrive, Positions: []int64{id.Position}, Unfiltered: true,
	})
}

// SelectionsOf are selections like the base, one for each subscription, of the
// named deliveries.
func SelectionsOf(base Selection, ids []ledger.DeliveryID) (list []Selection) {
	for _, id := range ids {
		at := slices.IndexFunc(list, func(s Selection) bool { return s.Subscription == id.Subscription })
		if at < 0 {
			base.Subscription, base.Positions = id.Subscription, nil
			list, at = append(list, base), len(list)
		}
		list[at].Positions = append(list[at].Positions, id.Position)
	}
	return list
}
