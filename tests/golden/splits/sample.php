<?php

namespace Shop;

/** An order; naïve on purpose. */
final class Order
{
    public function __construct(private string $item, private float $price)
    {
    }

    public function total(int $count, float $tax = 0.19): float
    {
        if ($count <= 0) {
            throw new \InvalidArgumentException("{$this->item}: count {$count} ≤ 0");
        }
        $net = $this->price * $count;
        return ceil($net * (1 + $tax) * 100) / 100;
    }
}

function cheapest(array $orders): ?Order
{
    $best = null;
    foreach ($orders as $order) {
        if ($best === null || $order->price() < $best->price()) {
            $best = $order;
        }
    }
    return $best;
}
