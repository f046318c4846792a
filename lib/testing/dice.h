/*
 * Numbers that a seed decides, and nothing else: SplitMix64 (Steele, Lea,
 * Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
 */
#ifndef SS_LIB_TESTING_DICE_H
#define SS_LIB_TESTING_DICE_H

#include <stdbool.h>
#include <stdint.h>

struct dice {
	uint64_t state;
};

static inline uint64_t dice_throw(struct dice *dice)
{
	uint64_t z = dice->state += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* Of their own for the part of that number. */
static inline struct dice dice_of(uint64_t seed, uint64_t number)
{
	struct dice dice = { seed };
	dice.state = dice_throw(&dice) ^ (number * 0xd6e8feb86659fd93);
	dice_throw(&dice);
	return dice;
}

/* 0 .. n - 1; 0 for n 0. */
static inline uint64_t dice_below(struct dice *dice, uint64_t n)
{
	uint64_t thrown = dice_throw(dice);
	return n ? thrown % n : 0;
}

/* In so many cases of 1000; nothing is thrown where that is none. */
static inline bool dice_chance(struct dice *dice, int of_1000)
{
	return of_1000 > 0 && dice_below(dice, 1000) < (uint64_t)of_1000;
}

#endif
