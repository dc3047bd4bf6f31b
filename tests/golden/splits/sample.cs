using System;
using System.Collections.Generic;

namespace Shop
{
    /// <summary>An order; naïve on purpose.</summary>
    public class Order
    {
        public string Item { get; set; }
        public double Price { get; set; }

        public double Total(int count, double tax = 0.19)
        {
            if (count <= 0)
            {
                throw new ArgumentException($"{Item}: count {count} ≤ 0");
            }
            var net = Price * count;
            return Math.Ceiling(net * (1 + tax) * 100) / 100;
        }

        public static Order Cheapest(IEnumerable<Order> orders)
        {
            Order best = null;
            foreach (var order in orders)
            {
                if (best == null || order.Price < best.Price)
                {
                    best = order;
                }
            }
            return best;
        }
    }
}
