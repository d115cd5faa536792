package import StrictJSON

/// `POST /v1/helper/sessions`: every field of the session document but the ones that the helper fills in.
///
/// The helper adds the server's name and the domain, which are those of the token, its public key, and when the session ends.
package struct HelperSessionRequest: Codable, Equatable, Sendable {
    package var purpose: HelperPurpose
    package var run: String
    package var round: Int
    package var attempt: Int
    /// SHA-256 of the model's file.
    package var model: String
    /// SHA-256 of the instructions.
    package var instructions: String
    /// b: 16, 32 or 64.
    package var bits: Int
    /// d.
    package var coordinates: Int
    package var step: Double
    /// B, grid units.
    package var coordinateBound: Int
    /// K, grid units.
    package var norm: Int
    package var noise: HelperNoise
    /// Σ*, grid units; 0 without noise.
    package var noiseDeviation: Double
    package var measure: HelperMeasure
    package var minimum: Int
    /// n_max.
    package var maximum: Int
    package var maxParticipations: Int
    /// Seconds until the session ends by the helper's clock: 7 days where it is absent, 30 at most.
    package var expiresInS: Int

    package static let longestSeconds = 30 * 86_400

    package init(
        purpose: HelperPurpose,
        run: String,
        round: Int,
        attempt: Int,
        model: String,
        instructions: String,
        bits: Int,
        coordinates: Int,
        step: Double,
        coordinateBound: Int,
        norm: Int,
        noise: HelperNoise,
        noiseDeviation: Double,
        measure: HelperMeasure,
        minimum: Int,
        maximum: Int,
        maxParticipations: Int,
        expiresInS: Int = 7 * 86_400
    ) {
        self.purpose = purpose
        self.run = run
        self.round = round
        self.attempt = attempt
        self.model = model
        self.instructions = instructions
        self.bits = bits
        self.coordinates = coordinates
        self.step = step
        self.coordinateBound = coordinateBound
        self.norm = norm
        self.noise = noise
        self.noiseDeviation = noiseDeviation
        self.measure = measure
        self.minimum = minimum
        self.maximum = maximum
        self.maxParticipations = maxParticipations
        self.expiresInS = expiresInS
    }

    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.read(document) { fields in
            for name in ["purpose", "noise", "measure"] where !fields.has(name) { fields.report(name, "is required") }
            let whole = 1...Int(UInt32.max)
            let exact = 1...((1 << 53) - 1)
            return Self(
                purpose: fields.choice("purpose", default: .training),
                run: fields.helperWord("run"),
                round: fields.integer("round", in: whole),
                attempt: fields.integer("attempt", in: whole),
                model: fields.sha256("model"),
                instructions: fields.sha256("instructions"),
                bits: fields.integer("bits", in: 16...64),
                coordinates: fields.integer("coordinates", in: exact),
                step: fields.number("step", in: 0...1e300, excludingLower: true),
                coordinateBound: fields.integer("coordinate_bound", in: exact),
                norm: fields.integer("norm", in: exact),
                noise: fields.choice("noise", default: .none),
                noiseDeviation: fields.number("noise_deviation", default: 0, in: 0...0x1p59),
                measure: fields.choice("measure", default: .l2),
                minimum: fields.integer("minimum", in: whole),
                maximum: fields.integer("maximum", in: whole),
                maxParticipations: fields.integer("max_participations", in: whole),
                expiresInS: fields.integer("expires_in_s", default: 7 * 86_400, in: 1...longestSeconds)
            )
        }
    }
}

/// A session as its server sees it.
package struct HelperSessionView: Codable, Equatable, Sendable {
    /// SHA-256 of the document.
    package var session: String
    package var state: HelperSessionState
    package var domain: String
    package var server: String
    package var purpose: HelperPurpose
    package var run: String
    package var round: Int
    package var attempt: Int
    /// D, base64.
    package var document: String
    /// The helper's signature of D, base64.
    package var grant: String
    package var expiresAt: String
    /// SHA-256 of the list that was summed.
    package var listSha256: String?
    /// SHA-256 of M.
    package var sumSha256: String?

    package init(
        session: String,
        state: HelperSessionState,
        domain: String,
        server: String,
        purpose: HelperPurpose,
        run: String,
        round: Int,
        attempt: Int,
        document: String,
        grant: String,
        expiresAt: String,
        listSha256: String?,
        sumSha256: String?
    ) {
        self.session = session
        self.state = state
        self.domain = domain
        self.server = server
        self.purpose = purpose
        self.run = run
        self.round = round
        self.attempt = attempt
        self.document = document
        self.grant = grant
        self.expiresAt = expiresAt
        self.listSha256 = listSha256
        self.sumSha256 = sumSha256
    }
}

extension FieldReader {
    /// A SHA-256 in hexadecimal digits.
    fileprivate func sha256(_ field: String) -> String {
        let text = string(field, lengthLimit: 64)
        if !text.isEmpty, ContentHash(text) == nil { report(field, ContentHash.rule) }
        return text
    }
}
