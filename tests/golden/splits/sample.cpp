#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

namespace shop {

// An order; naïve on purpose.
class Order {
public:
    Order(std::string item, double price) : item_(std::move(item)), price_(price) {}

    double total(int count, double tax = 0.19) const {
        if (count <= 0) {
            throw std::invalid_argument(item_ + ": count ≤ 0");
        }
        auto net = price_ * count;
        return std::ceil(net * (1 + tax) * 100) / 100;
    }

    double price() const { return price_; }

private:
    std::string item_;
    double price_;
};

template <typename T>
const T *cheapest(const std::vector<T> &orders) {
    const T *best = nullptr;
    for (const auto &order : orders) {
        if (best == nullptr || order.price() < best->price()) {
            best = &order;
        }
    }
    return best;
}

}  // namespace shop
