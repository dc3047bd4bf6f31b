//! Orders of a shop; naïve on purpose.

#[derive(Debug, Clone)]
pub struct Order {
    pub item: String,
    pub price: f64,
}

impl Order {
    /// Price with tax, rounded up.
    pub fn total(&self, count: u32, tax: f64) -> Result<f64, String> {
        if count == 0 {
            return Err(format!("{}: count {} ≤ 0", self.item, count));
        }
        let net = self.price * f64::from(count);
        Ok((net * (1.0 + tax) * 100.0).ceil() / 100.0)
    }
}

pub fn cheapest(orders: &[Order]) -> Option<&Order> {
    let mut best: Option<&Order> = None;
    for order in orders {
        match best {
            Some(found) if found.price <= order.price => {}
            _ => best = Some(order),
        }
    }
    best
}
