import Tensors

/// Random rounding to one of two neighbours, so that the expected value is the value.
enum StochasticRounding {
    /// Rounds to a whole number: up with the probability of the fraction.
    static func integer(_ value: Float, _ generator: inout Xoshiro256StarStar) -> Int32 {
        let floor = value.rounded(.down)
        return Int32(floor) + (generator.nextUniform() < value - floor ? 1 : 0)
    }

    /// bfloat16 bits: random bits are added to the 16 that are cut, so magnitudes round up as often as they must.
    static func brain(_ value: Float, _ generator: inout Xoshiro256StarStar) -> UInt16 {
        let noise = UInt32(truncatingIfNeeded: generator.next()) & 0xFFFF
        let bits = value.bitPattern
        let (sum, overflow) = bits.addingReportingOverflow(noise)
        // A magnitude next to infinity is cut instead.
        if overflow || (sum & 0x7F80_0000) == 0x7F80_0000 { return UInt16(bits >> 16) }
        return UInt16(sum >> 16)
    }

    /// binary16 bits; magnitudes over 65,504 become that.
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
