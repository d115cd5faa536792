public import Foundation
import MartletTransport
public import WireFormat

extension OperatorClient {
    /// How a run file is written.
    public enum RunFileFormat: String, Sendable {
        /// YAML.
        case yaml = "application/yaml"
        /// JSON.
        case json = "application/json"
    }

    /// Creates a run; an operator's right.
    ///
    /// - Parameters:
    ///   - file: The run file's bytes.
    ///   - format: How it is written.
    /// - Returns: The run, which waits to be started.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    public func createRun(_ file: Data, _ format: RunFileFormat = .yaml) async throws -> RunView {
        try await answer(to: Endpoints.createRun(), .bytes(file), contentType: format.rawValue).decoded()
    }

    /// All runs, oldest first, in as many requests as there are pages.
    public func runs() async throws -> [RunView] { try await items(of: Endpoints.runs()) }

    /// One run.
    public func run(_ run: String) async throws -> RunView {
        try await answer(to: Endpoints.run(RunReference(run))).decoded()
    }

    /// Starts a run; an operator's right.
    @discardableResult
    public func startRun(_ run: String) async throws -> RunView {
        try await answer(to: Endpoints.startRun(RunReference(run))).decoded()
    }

    /// Hands out no more work until the run is resumed; an operator's right.
    @discardableResult
    public func pauseRun(_ run: String) async throws -> RunView {
        try await answer(to: Endpoints.pauseRun(RunReference(run))).decoded()
    }

    /// Goes on with a paused run; an operator's right.
    @discardableResult
    public func resumeRun(_ run: String) async throws -> RunView {
        try await answer(to: Endpoints.resumeRun(RunReference(run))).decoded()
    }

    /// Ends a run for good; an operator's right.
    @discardableResult
    public func cancelRun(_ run: String) async throws -> RunView {
        try await answer(to: Endpoints.cancelRun(RunReference(run))).decoded()
    }

    /// Asks again and again until nothing more will happen in a run.
    ///
    /// - Parameters:
    ///   - run: The run.
    ///   - interval: How long to wait between two requests.
    /// - Returns: The run, which is completed, cancelled or failed.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    public func waitForEnd(of run: String, interval: Duration = .seconds(1)) async throws -> RunView {
        while true {
            let view = try await self.run(run)
            if view.state.isFinal { return view }
            try await Task.sleep(for: interval)
        }
    }

    /// All attempts at rounds of a run, oldest first, in as many requests as there are pages.
    public func rounds(of run: String) async throws -> [RoundView] {
        try await items(of: Endpoints.rounds(RunReference(run)).with("limit", 10_000))
    }

    /// The latest attempts at rounds of a run, oldest first.
    ///
    /// - Parameters:
    ///   - count: How many, at most.
    ///   - run: The run.
    /// - Returns: What the server says about it.
    /// - Throws: ``OperatorError``, `ClientError` or `DecodingError`.
    public func latestRounds(_ count: Int, of run: String) async throws -> [RoundView] {
        try await items(of: Endpoints.rounds(RunReference(run)).with("last", count))
    }

    /// The latest attempt at a round.
    public func round(_ number: Int, of run: String) async throws -> RoundView {
        try await answer(to: Endpoints.round(RunReference(run), RoundReference(number))).decoded()
    }
}
