package shop

import kotlin.math.ceil

/** An order; naïve on purpose. */
data class Order(val item: String, val price: Double) {
    fun total(count: Int, tax: Double = 0.19): Double {
        require(count > 0) { "$item: count $count ≤ 0" }
        val net = price * count
        return ceil(net * (1 + tax) * 100) / 100
    }
}

fun cheapest(orders: List<Order>): Order? {
    var best: Order? = null
    for (order in orders) {
        if (best == null || order.price < best.price) {
            best = order
        }
    }
    return best
}

fun names(orders: List<Order>) = orders.map { it.item }.sorted()
