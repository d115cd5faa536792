import LocalTraining
import Testing

/// Holds every component of a network's gradient to central differences of its loss.
func expectCentralDifferences(of network: some LanguageNetwork<Double>, on batch: TokenBatch) {
    _ = network.differentiate(batch)
    let gradient = network.gradient
    let step = 1e-6
    for index in gradient.indices {
        let saved = network.parameters[index]
        func loss(_ value: Double) -> Double {
            network.parameters[index] = value
            let measure = network.measure(batch)
            return measure.nll / Double(measure.tokens)
        }
        let slope = (loss(saved + step) - loss(saved - step)) / (2 * step)
        network.parameters[index] = saved
        // Central differences in Double are good to about 1e-9 here; 1e-7 is the specification's bound.
        #expect(abs(slope - gradient[index]) < 1e-7)
    }
}
