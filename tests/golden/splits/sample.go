package shop

import (
	"fmt"
	"math"
)

// Order is one line of a bill; naïve on purpose.
type Order struct {
	Item  string
	Price float64
}

// Total is the price with tax, rounded up.
func (o Order) Total(count int, tax float64) (float64, error) {
	if count <= 0 {
		return 0, fmt.Errorf("%s: count %d ≤ 0", o.Item, count)
	}
	net := o.Price * float64(count)
	return math.Ceil(net*(1+tax)*100) / 100, nil
}

func cheapest(orders []Order) *Order {
	var best *Order
	for i := range orders {
		if best == nil || orders[i].Price < best.Price {
			best = &orders[i]
		}
	}
	return best
}
