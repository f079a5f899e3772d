package replay

import (
	"slices"

	"posthorn/services/internal/ledger"
)

// SelectionsOf returns selections like base, one for each subscription, of the
// given deliveries.
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
