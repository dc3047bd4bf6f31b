package shop;

import java.util.List;

/** An order; naïve on purpose. */
public class Order {
    private final String item;
    private final double price;

    public Order(String item, double price) {
        this.item = item;
        this.price = price;
    }

    public double total(int count, double tax) {
        if (count <= 0) {
            throw new IllegalArgumentException(item + ": count " + count + " ≤ 0");
        }
        double net = price * count;
        return Math.ceil(net * (1 + tax) * 100) / 100;
    }

    static Order cheapest(List<Order> orders) {
        Order best = null;
        for (Order order : orders) {
            if (best == null || order.price < best.price) {
                best = order;
            }
        }
        return best;
    }
}
