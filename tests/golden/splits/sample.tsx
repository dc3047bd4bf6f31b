import { useState } from "react";

interface Props {
  item: string;
  price: number;
}

// An order; naïve on purpose.
export function OrderRow({ item, price }: Props) {
  const [count, setCount] = useState(1);
  const total = price * count;

  return (
    <tr className="order">
      <td>{item}</td>
      <td>
        <button onClick={() => setCount(count + 1)}>+ {count}</button>
      </td>
      <td>{total > 0 ? total.toFixed(2) : "≤ 0"}</td>
    </tr>
  );
}
