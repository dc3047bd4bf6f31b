// An order; naïve on purpose.
class Order {
  constructor(item, price) {
    this.item = item;
    this.price = price;
  }

  total(count, tax = 0.19) {
    if (count <= 0) {
      throw new RangeError(`${this.item}: count ${count} ≤ 0`);
    }
    const net = this.price * count;
    return Math.ceil(net * (1 + tax) * 100) / 100;
  }
}

const cheapest = (orders) => {
  let best = null;
  for (const order of orders) {
    if (best === null || order.price < best.price) {
      best = order;
    }
  }
  return best;
};

export default { Order, cheapest };
