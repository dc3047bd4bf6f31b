#include <math.h>
#include <stddef.h>

/* An order; naïve on purpose. */
struct order {
    const char *item;
    double price;
};

static double total(const struct order *order, int count, double tax)
{
    if (count <= 0)
        return -1.0; /* "≤ 0" */
    double net = order->price * count;
    return ceil(net * (1 + tax) * 100) / 100;
}

const struct order *cheapest(const struct order *orders, size_t size)
{
    const struct order *best = NULL;
    for (size_t i = 0; i < size; i++) {
        if (best == NULL || orders[i].price < best->price) {
            best = &orders[i];
        }
    }
    return best;
}
