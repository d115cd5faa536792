import MartletTransport
public import WireFormat

extension OperatorClient {
    /// Uploads the first version of a run whose architecture the server cannot initialise; an operator's right.
    ///
    /// - Parameters:
    ///   - path: A safetensors file in F32.
    ///   - run: The run.
    /// - Returns: Version 0.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    @discardableResult
    public func putModel(_ path: String, of run: String) async throws -> ModelVersionView {
        try await answer(
            to: Endpoints.putModel(RunReference(run)),
            .file(path: path),
            contentType: "application/vnd.safetensors"
        ).decoded()
    }

    /// All versions of a run, oldest first, in as many requests as there are pages.
    public func models(of run: String) async throws -> [ModelVersionView] {
        try await items(of: Endpoints.models(RunReference(run)))
    }

    /// One version.
    ///
    /// - Parameters:
    ///   - version: Its number; `nil`: the newest.
    ///   - run: The run.
    /// - Returns: What the server says about it.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    public func model(_ version: Int? = nil, of run: String) async throws -> ModelVersionView {
        try await answer(to: Endpoints.model(RunReference(run), version.map(VersionReference.init) ?? .latest))
            .decoded()
    }

    /// Fetches a version's safetensors file, in two requests: the second names the size and hash that the first one told.
    ///
    /// - Parameters:
    ///   - version: Its number; `nil`: the newest.
    ///   - run: The run.
    ///   - path: Where the file goes; what is there is replaced.
    /// - Returns: The version.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    @discardableResult
    public func downloadModel(_ version: Int? = nil, of run: String, to path: String) async throws -> ModelVersionView {
        let view = try await model(version, of: run)
        try await downloadModel(view, to: path)
        return view
    }

    /// Fetches the safetensors file of a version that is known.
    package func downloadModel(_ version: ModelVersionView, to path: String) async throws {
        let weights = Endpoints.weights(RunReference(version.run), VersionReference(version.version))
        try await download(weights, to: path, sha256: version.sha256, byteLimit: version.bytes)
    }

    /// Records what was measured of a version; an operator's right.
    ///
    /// - Parameters:
    ///   - metrics: Values by name, such as `accuracy`.
    ///   - version: The version's number; `nil`: the newest.
    ///   - run: The run.
    ///   - source: Who measured; `nil`: the operator, on data that no client has.
    /// - Returns: The version.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    @discardableResult
    public func reportMetrics(
        _ metrics: [String: Double],
        of version: Int? = nil,
        run: String,
        source: String? = nil
    ) async throws -> ModelVersionView {
        try await answer(
            to: Endpoints.reportMetrics(RunReference(run), version.map(VersionReference.init) ?? .latest),
            MetricsReport(metrics: metrics, source: source ?? MetricsReport.heldOut)
        ).decoded()
    }
}
