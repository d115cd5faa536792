import Crypto
import Foundation

/// What server, helper and devices agree on for one sum, byte for byte.
///
/// A device computes every field that it can and copies none of those. ``session`` is the document's name, and the helper signs it
/// (``SessionGrant``).
package struct SessionDocument: Equatable, Sendable {
    /// What is summed.
    package enum Purpose: UInt8, Sendable {
        case training = 1
        case evaluation = 2
        case histogram = 3
        case prefixCounts = 4
    }

    /// The norm that K bounds.
    package enum Measure: UInt8, Sendable {
        case l1 = 1
        case l2 = 2
    }

    /// What each party's noise is drawn from.
    package enum Noise: UInt8, Sendable {
        case none = 0
        case gaussian = 1
        case laplace = 2

        /// The part of the ring that is kept free for noise, in standard deviations.
        ///
        /// A coordinate exceeds it with a probability of at most 1.3·10⁻¹⁵: erfc(8/√2) for Gaussian noise, and at most
        /// 2/(1 + e^(−1/t)) · e^(−25Σ*/t) for discrete Laplace noise of a scale t from 2 on, whose deviation is 1.39·t or more.
        var marginDeviations: Double {
            switch self {
            case .none: 0
            case .gaussian: 8
            case .laplace: 25
            }
        }
    }

    private static let magic = Array("martlet-helper/1".utf8)
    /// The most bytes of a name.
    private static let nameByteLimit = 255
    /// The most coordinates of a sum.
    private static let coordinateLimit: UInt64 = 1 << 40

    package var purpose: Purpose
    package var server: String
    /// The helper's name for the population.
    package var domain: String
    package var run: String
    package var round: UInt32
    package var attempt: UInt32
    /// SHA-256 of the model's file, 32 bytes.
    package var model: [UInt8]
    /// SHA-256 of the instructions, 32 bytes.
    package var instructions: [UInt8]
    package var width: RingWidth
    /// d, the length of the sum.
    package var coordinateCount: UInt64
    /// The grid's step, in units of the coordinates.
    package var step: Double
    /// B, the largest magnitude of one contribution's coordinate, in grid units.
    package var coordinateBound: UInt64
    /// K, the norm of one contribution, in grid units.
    package var norm: UInt64
    /// Σ*, the noise's standard deviation in grid units; 0 without noise.
    package var noiseDeviation: Double
    package var measure: Measure
    package var noise: Noise
    /// The least number of updates in a sum.
    package var minimum: UInt32
    /// n_max, the largest number of updates in a sum.
    package var maximum: UInt32
    package var maxParticipations: UInt32
    /// The session's X-Wing key, 1,216 bytes.
    package var publicKey: [UInt8]
    /// Seconds since 1970.
    package var expires: UInt64

    package init(
        purpose: Purpose,
        server: String,
        domain: String,
        run: String,
        round: UInt32,
        attempt: UInt32,
        model: [UInt8],
        instructions: [UInt8],
        width: RingWidth,
        coordinateCount: UInt64,
        step: Double,
        coordinateBound: UInt64,
        norm: UInt64,
        noiseDeviation: Double,
        measure: Measure,
        noise: Noise,
        minimum: UInt32,
        maximum: UInt32,
        maxParticipations: UInt32,
        publicKey: [UInt8],
        expires: UInt64
    ) {
        self.purpose = purpose
        self.server = server
        self.domain = domain
        self.run = run
        self.round = round
        self.attempt = attempt
        self.model = model
        self.instructions = instructions
        self.width = width
        self.coordinateCount = coordinateCount
        self.step = step
        self.coordinateBound = coordinateBound
        self.norm = norm
        self.noiseDeviation = noiseDeviation
        self.measure = measure
        self.noise = noise
        self.minimum = minimum
        self.maximum = maximum
        self.maxParticipations = maxParticipations
        self.publicKey = publicKey
        self.expires = expires
    }

    /// The document in the protocol's layout.
    package var bytes: [UInt8] {
        var writer = LayoutWriter()
        writer.put(Self.magic)
        writer.put(purpose.rawValue)
        writer.put(text: server)
        writer.put(text: domain)
        writer.put(text: run)
        writer.put(round)
        writer.put(attempt)
        writer.put(model)
        writer.put(instructions)
        writer.put(width.rawValue)
        writer.put(coordinateCount)
        writer.put(step)
        writer.put(coordinateBound)
        writer.put(norm)
        writer.put(noiseDeviation)
        writer.put(measure.rawValue)
        writer.put(noise.rawValue)
        writer.put(minimum)
        writer.put(maximum)
        writer.put(maxParticipations)
        writer.put(publicKey)
        writer.put(expires)
        return writer.bytes
    }

    /// The session's name: SHA-256 of the document.
    package var session: [UInt8] { Array(SHA256.hash(data: bytes)) }

    /// Reads a document and validates it.
    ///
    /// - Throws: ``SecureAggregationError`` `invalid_document`.
    package init(parsing bytes: [UInt8]) throws(SecureAggregationError) {
        var reader = LayoutReader(bytes)
        guard try reader.raw(Self.magic.count) == Self.magic else {
            throw SecureAggregationError(.invalidDocument, "this is no document of martlet-helper/1")
        }
        purpose = try Self.known(Purpose(rawValue: try reader.integer()), "purpose")
        server = try reader.text(upTo: Self.nameByteLimit)
        domain = try reader.text(upTo: Self.nameByteLimit)
        run = try reader.text(upTo: Self.nameByteLimit)
        round = try reader.integer()
        attempt = try reader.integer()
        model = try reader.raw(32)
        instructions = try reader.raw(32)
        width = try Self.known(RingWidth(rawValue: try reader.integer()), "ring width")
        coordinateCount = try reader.integer()
        step = try reader.double()
        coordinateBound = try reader.integer()
        norm = try reader.integer()
        noiseDeviation = try reader.double()
        measure = try Self.known(Measure(rawValue: try reader.integer()), "measure")
        noise = try Self.known(Noise(rawValue: try reader.integer()), "noise")
        minimum = try reader.integer()
        maximum = try reader.integer()
        maxParticipations = try reader.integer()
        publicKey = try reader.raw(SessionKey.publicByteCount)
        expires = try reader.integer()
        guard reader.isAtEnd else { throw SecureAggregationError(.invalidDocument, "bytes follow the document") }
        try validate()
    }

    private static func known<Value>(_ value: Value?, _ name: String) throws(SecureAggregationError) -> Value {
        guard let value else { throw SecureAggregationError(.invalidDocument, "the \(name) is not known") }
        return value
    }

    /// Checks ranges, and that no sum of `maximum` contributions with noise leaves the ring.
    ///
    /// A coordinate of noise exceeds its margin (8Σ* for Gaussian noise, 25Σ* for Laplace noise) with a probability of at most
    /// 1.3·10⁻¹⁵. A sum that wraps costs utility and no privacy.
    ///
    /// - Throws: ``SecureAggregationError`` `invalid_document` with the first rule that is broken.
    package func validate() throws(SecureAggregationError) {
        func require(_ holds: Bool, _ sentence: String) throws(SecureAggregationError) {
            guard holds else { throw SecureAggregationError(.invalidDocument, sentence) }
        }
        try require((1...Self.coordinateLimit).contains(coordinateCount), "a sum has 1 to 2⁴⁰ coordinates")
        try require(step > 0 && step.isFinite, "the step is a positive number")
        try require(coordinateBound > 0 && coordinateBound <= norm, "B is between 1 and K")
        try require(norm < 1 << 62, "K is under 2⁶²")
        try require(noiseDeviation >= 0 && noiseDeviation < 0x1p60, "the noise's deviation is between 0 and 2⁶⁰")
        try require((noise == .none) == (noiseDeviation == 0), "noise and its deviation go together")
        try require(noise == .none || width != .bits16, "with noise a coordinate has 32 or 64 bits")
        try require(noise != .laplace || measure == .l1, "Laplace noise goes with an L1 bound")
        try require(noise != .gaussian || measure == .l2, "Gaussian noise goes with an L2 bound")
        try require(minimum >= 1 && minimum <= maximum, "the minimum is between 1 and n_max")
        try require(maxParticipations >= 1, "max_participations is at least 1")
        let most = UInt128(maximum) * UInt128(coordinateBound) + Self.margin(noise, noiseDeviation)
        try require(
            most <= UInt128(width.reach),
            "\(maximum) contributions of \(coordinateBound) with noise could leave a ring of \(width.rawValue) bits"
        )
    }

    /// The largest B for which `maximum` contributions with noise stay within the ring; 0 if there is none.
    package static func largestCoordinateBound(
        width: RingWidth,
        norm: UInt64,
        noise: Noise,
        noiseDeviation: Double,
        maximum: UInt32
    ) -> UInt64 {
        guard maximum > 0, (0..<0x1p60).contains(noiseDeviation) else { return 0 }
        let (reach, margin) = (UInt128(width.reach), Self.margin(noise, noiseDeviation))
        guard margin < reach else { return 0 }
        return min(norm, UInt64((reach - margin) / UInt128(maximum)))
    }

    /// The part of the ring that is kept free for noise, in grid units.
    private static func margin(_ noise: Noise, _ deviation: Double) -> UInt128 {
        UInt128((noise.marginDeviations * deviation).rounded(.up))
    }
}
