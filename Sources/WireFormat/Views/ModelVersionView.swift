/// A published model version as it is shown.
public struct ModelVersionView: Codable, Equatable, Sendable {
    /// The id of its run.
    public var run: String
    /// From 0, the initial model.
    public var version: Int
    /// Of the safetensors file, in hexadecimal.
    public var sha256: String
    /// Size of the safetensors file.
    public var bytes: Int
    /// RFC 3339 in UTC.
    public var createdAt: String
    /// The path of the file on this server.
    public var url: String
    /// What the server's optimiser remembers after this version.
    public var optimizerSha256: String?
    /// Its path on this server.
    public var optimizerUrl: String?
    /// The server's control variate (SCAFFOLD).
    public var controlSha256: String?
    /// Its path on this server.
    public var controlUrl: String?
    /// C of the round that starts from it, where the clipping norm follows a quantile.
    public var clippingNorm: Double?
    /// What was measured of it, by source and name.
    public var metrics: [String: [String: Double]]?
    /// Whether it is the best version by what was measured.
    public var isBest = false

    package init(
        run: String,
        version: Int,
        sha256: String,
        bytes: Int,
        createdAt: String,
        url: String,
        optimizerSha256: String? = nil,
        optimizerUrl: String? = nil,
        controlSha256: String? = nil,
        controlUrl: String? = nil,
        clippingNorm: Double? = nil,
        metrics: [String: [String: Double]]? = nil,
        isBest: Bool = false
    ) {
        self.run = run
        self.version = version
        self.sha256 = sha256
        self.bytes = bytes
        self.createdAt = createdAt
        self.url = url
        self.optimizerSha256 = optimizerSha256
        self.optimizerUrl = optimizerUrl
        self.controlSha256 = controlSha256
        self.controlUrl = controlUrl
        self.clippingNorm = clippingNorm
        self.metrics = metrics
        self.isBest = isBest
    }
}
