import Tensors

/// Rounds at random to one of the two neighbours, so that the expectation of the result is the value.
enum StochasticRounding {
    /// A whole number: rounded up with a probability equal to the fraction.
    static func integer(_ value: Float, _ generator: inout Xoshiro256StarStar) -> Int32 {
        let floor = value.rounded(.down)
        return Int32(floor) + (generator.nextUniform() < value - floor ? 1 : 0)
    }

    /// bfloat16 bits: 16 random bits are added to the 16 that are cut, so that a magnitude rounds up with the right probability.
    static func brain(_ value: Float, _ generator: inout Xoshiro256StarStar) -> UInt16 {
        let noise = UInt32(truncatingIfNeeded: generator.next()) & 0xFFFF
        let bits = value.bitPattern
        let (sum, overflow) = bits.addingReportingOverflow(noise)
        // A magnitude that would become infinite is truncated.
        if overflow || (sum & 0x7F80_0000) == 0x7F80_0000 { return UInt16(bits >> 16) }
        return UInt16(sum >> 16)
    }

    /// binary16 bits; a magnitude over 65,504, the largest finite one, becomes 65,504.
    static func half(_ value: Float, _ generator: inout Xoshiro256StarStar) -> UInt16 {
        let sign = UInt16(value.bitPattern >> 16) & 0x8000
        let magnitude = min(abs(value), 65_504)
        guard magnitude >= 0x1p-14 else {
            // Subnormal: whole steps of 2⁻²⁴.
            return sign | UInt16(integer(magnitude * 0x1p24, &generator))
        }
        let noise = UInt32(truncatingIfNeeded: generator.next()) & 0x1FFF
        let bits = min((magnitude.bitPattern + noise) >> 13, Float(65_504).bitPattern >> 13)
        return sign | UInt16(bits - 112 << 10)
    }
}
