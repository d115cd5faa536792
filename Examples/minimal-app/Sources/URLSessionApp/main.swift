import MartletURLSession
import PriceTrainer

try await Devices.run(Array(CommandLine.arguments.dropFirst()), over: URLSessionTransport())
