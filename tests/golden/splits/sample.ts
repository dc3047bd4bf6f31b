// An order; naïve on purpose.
export interface Order {
  item: string;
  price: number;
}

export function total(order: Order, count: number, tax = 0.19): number {
  if (count <= 0) {
    throw new RangeError(`${order.item}: count ${count} ≤ 0`);
  }
  const net: number = order.price * count;
  return Math.ceil(net * (1 + tax) * 100) / 100;
}

export function cheapest<T extends Order>(orders: readonly T[]): T | null {
  let best: T | null = null;
  for (const order of orders) {
    if (best === null || order.price < best.price) {
      best = order;
    }
  }
  return best;
}
