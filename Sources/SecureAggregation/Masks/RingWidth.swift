/// The number of bits b of a masked coordinate: sums are taken modulo 2ᵇ.
package enum RingWidth: UInt8, CaseIterable, Sendable {
    case bits16 = 16
    case bits32 = 32
    case bits64 = 64

    package var byteCount: Int { Int(rawValue) / 8 }

    /// The largest magnitude that a sum may have without wrapping, 2ᵇ⁻¹ − 1.
    package var reach: UInt64 { (1 << (UInt64(rawValue) - 1)) - 1 }
}

/// A word of the ring; loops are generic over it, so that they are compiled for each width.
package protocol RingWord: FixedWidthInteger, UnsignedInteger, Sendable where Self.Magnitude == Self {
    static var width: RingWidth { get }
}

extension UInt16: RingWord {
    package static var width: RingWidth { .bits16 }
}

extension UInt32: RingWord {
    package static var width: RingWidth { .bits32 }
}

extension UInt64: RingWord {
    package static var width: RingWidth { .bits64 }
}

extension RingWord {
    /// The residue of an integer modulo 2ᵇ.
    package init(residueOf value: Int64) { self.init(truncatingIfNeeded: value) }

    /// The integer of least magnitude with this residue.
    package var centred: Int64 {
        switch Self.width {
        case .bits16: Int64(Int16(truncatingIfNeeded: self))
        case .bits32: Int64(Int32(truncatingIfNeeded: self))
        case .bits64: Int64(truncatingIfNeeded: self)
        }
    }
}
