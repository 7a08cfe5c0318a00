//! Integers beyond 64 bits.

use super::term::Big;

impl Big<'_> {
    /// The value, if 64 bits hold it.
    pub(super) fn to_i64(self) -> Option<i64> {
        if self.digits.len() > 8 {
            return None;
        }
        let magnitude =
            self.digits.iter().rev().fold(0u64, |sum, digit| sum << 8 | u64::from(*digit));
        if self.negative {
            0i64.checked_sub_unsigned(magnitude)
        } else {
            i64::try_from(magnitude).ok()
        }
    }

    /// The value in decimal. The work grows with the square of the size: bound that first.
    pub fn to_decimal(self) -> String {
        const GROUP: u64 = 1_000_000_000;
        // Groups of nine decimal digits, lowest first.
        let mut groups: Vec<u32> = vec![0];
        for digit in self.digits.iter().rev() {
            let mut carry = u64::from(*digit);
            for group in &mut groups {
                let value = u64::from(*group) << 8 | carry;
                // Always below GROUP, so below 32 bits.
                *group = u32::try_from(value % GROUP).unwrap_or_default();
                carry = value / GROUP;
            }
            if carry > 0 {
                groups.push(u32::try_from(carry).unwrap_or_default());
            }
        }
        let mut text = String::from(if self.negative { "-" } else { "" });
        let mut groups = groups.iter().rev();
        text.extend(groups.next().map(u32::to_string));
        text.extend(groups.map(|group| format!("{group:09}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Big;

    fn decimal(negative: bool, value: u128) -> String {
        Big { negative, digits: &value.to_le_bytes() }.to_decimal()
    }

    #[test]
    fn is_exact() {
        for value in [0, 1, 999_999_999, 1_000_000_000, u128::from(u64::MAX) + 1, u128::MAX] {
            assert_eq!(decimal(false, value), value.to_string());
        }
        assert_eq!(decimal(true, 1 << 64), format!("-{}", 1u128 << 64));
    }

    #[test]
    fn knows_what_fits_64_bits() {
        let to_i64 = |negative, value: u64| Big { negative, digits: &value.to_le_bytes() }.to_i64();
        assert_eq!(to_i64(false, 1 << 62), Some(1 << 62));
        assert_eq!(to_i64(false, 1 << 63), None);
        assert_eq!(to_i64(true, 1 << 63), Some(i64::MIN));
        assert_eq!(to_i64(true, (1 << 63) + 1), None);
    }
}
