# Orders of a shop; naïve on purpose.
class Order
  attr_reader :item, :price

  def initialize(item, price)
    @item = item
    @price = price
  end

  def total(count, tax: 0.19)
    raise ArgumentError, "#{item}: count #{count} ≤ 0" if count <= 0

    net = price * count
    (net * (1 + tax) * 100).ceil / 100.0
  end
end

def cheapest(orders)
  best = nil
  orders.each do |order|
    if best.nil? || order.price < best.price
      best = order
    end
  end
  best
end
