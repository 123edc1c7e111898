/* Written by edgeml: main ROWS [OUTPUTS] computes rows of inputs and compares what comes out with what is due.
   ROWS holds, one inference after the other, the bytes of all inputs and then of all outputs, in this machine's order.
   Exit code 0: the largest difference is at most a millionth of the outputs' range, or OUTPUTS was written. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "model.h"

#define LIMIT 1e-6
static float input_0[1][8][8][1];
static float output_0[1][10];
static float due_output_0[1][10];
static double most, least_due = INFINITY, most_due = -INFINITY;

static void compare(const float *found, const float *due, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        const double off = fabs((double)found[i] - (double)due[i]);
        if (!(off <= most)) most = off;
        if (due[i] < least_due) least_due = due[i];
        if (due[i] > most_due) most_due = due[i];
    }
}

int main(int argc, char **argv) {
    FILE *rows = argc > 1 ? fopen(argv[1], "rb") : NULL;
    FILE *outputs = argc > 2 ? fopen(argv[2], "wb") : NULL;
    if (rows == NULL || (argc > 2 && outputs == NULL)) {
        fprintf(stderr, "main ROWS [OUTPUTS]: a file is missing or cannot be written\n");
        return 2;
    }
    long count = 0;
    clock_t taken = 0;
    while (fread(input_0, sizeof input_0, 1, rows) == 1 && fread(due_output_0, sizeof due_output_0, 1, rows) == 1) {
        const clock_t begun = clock();
        model((void *)input_0, output_0);
        taken += clock() - begun;
        ++count;
        compare((const float *)output_0, (const float *)due_output_0, sizeof output_0 / sizeof(float));
        if (outputs != NULL && fwrite(output_0, sizeof output_0, 1, outputs) != 1) return 2;
    }
    if (outputs != NULL && fclose(outputs) != 0) return 2;
    const double range = most_due > least_due ? most_due - least_due : 1.0;
    printf("%ld inferences, largest difference %.3g (%.3g of the range), %.3f us per inference\n", count, most,
           most / range, count > 0 ? 1e6 * (double)taken / CLOCKS_PER_SEC / (double)count : 0.0);
    return count == 0 ? 2 : outputs != NULL || most <= LIMIT * range ? 0 : 1;
}
